import json, hashlib, torch, numpy as np, warnings
warnings.filterwarnings('ignore')
from fastai.vision.all import *
from fastai.callback.schedule import combined_cos, valley, slide, minimum, steep
from fastai.optimizer import Adam
import fastai
out={'fastai':fastai.__version__,'torch':torch.__version__}
# 1 fine_tune trace
def trace(n_iter, freeze_epochs, epochs, base_lr=2e-3, lr_mult=100, pct_start=.3, div=5., div_final=1e5, moms=(.95,.85,.95)):
    rows=[]
    def phase(name,n_epoch,lr_max,pct,dv):
        lr_max=np.array(lr_max)
        lrs=combined_cos(pct, lr_max/dv, lr_max, lr_max/div_final); m=combined_cos(pct,*moms)
        for e in range(n_epoch):
            p=e/n_epoch
            for i in range(n_iter):
                rows.append([name,e,i,round(p,9)]+[float(x) for x in lrs(p)]+[float(m(p))]); p+=1./(n_iter*n_epoch)
    phase('frozen',freeze_epochs,[base_lr/10,base_lr/10,base_lr],.99,25.)
    b=base_lr/2
    phase('unfrozen',epochs,list(even_mults(b/lr_mult,b,3)),pct_start,div)
    return rows
out['fine_tune_trace']={'args':{'n_iter':11,'freeze_epochs':1,'epochs':5,'base_lr':2e-3},'cols':['phase','epoch','iter','pct','lr_g0','lr_g1','lr_g2','mom'],'rows':trace(11,1,5)}
# 2 lr suggestions on a synthetic curve
N=100
lrs=torch.tensor([1e-7*(10/1e-7)**(i/N) for i in range(N)],dtype=torch.float32)
x=torch.linspace(0,1,N); losses=(2.5-1.6*torch.sigmoid((x-.55)*18)+8*torch.relu(x-.83)**1.3+0.03*torch.sin(40*x)).float()
l2,s2=lrs[N//10:-5],losses[N//10:-5]
out['lr_find']={'lrs':lrs.tolist(),'losses':losses.tolist(),'slice':'[num_it//10 : -5]','valley':valley(l2,s2,N)[0],'minimum':minimum(l2,s2,N)[0],'steep':steep(l2,s2,N)[0],'slide':slide(l2,s2,N)[0]}
# 3 splitter
t,v=RandomSplitter(0.2,seed=42)(list(range(951)))
out['splitter']={'n':951,'seed':42,'n_valid':len(v),'valid_first10':[int(i) for i in v[:10]],'valid_sha256':hashlib.sha256(','.join(str(int(i)) for i in v).encode()).hexdigest()}
# 4 head
h=create_head(512,10); out['head']={'repr':str(h),'params':sum(p.numel() for p in h.parameters())}
# 5 Adam
p=nn.Parameter(torch.tensor([0.5,-1.0])); opt=Adam([p],lr=1e-2,wd=0.01,mom=.95)
rows=[]
for k,(g,lr,m) in enumerate([([.1,-.2],1e-2,.95),([.3,.05],2e-2,.93),([-.2,.4],3e-2,.90)]):
    opt.set_hyper('lr',lr); opt.set_hyper('mom',m); p.grad=torch.tensor(g); opt.step(); rows.append({'grad':g,'lr':lr,'mom':m,'p':p.detach().tolist()})
out['adam']={'p0':[.5,-1.0],'wd':0.01,'sqr_mom':.99,'eps':1e-5,'steps':rows}
# 6 label smoothing + CE
lg=torch.tensor([[2.,.5,-1.],[.1,.2,.3]]); tg=torch.tensor([0,2])
out['label_smoothing']={'logits':lg.tolist(),'targets':tg.tolist(),'eps':.1,'loss':LabelSmoothingCrossEntropy()(lg,tg).item(),'ce':F.cross_entropy(lg,tg).item()}
# 7 augment deterministic draws
torch.manual_seed(0); img=TensorImage(torch.rand(1,3,6,8))
def go(t):
    p=Pipeline([t],split_idx=0) if not isinstance(t,list) else Pipeline(t,split_idx=0)
    return p(img.clone())
a={'input':img.tolist()}
a['flip']=go(Flip(p=1.,draw=1.)).tolist()
a['rotate_7deg']=go(Rotate(p=1.,draw=7.)).tolist()
a['zoom_1.08_x.3_y.7']=go(Zoom(p=1.,draw=1.08,draw_x=.3,draw_y=.7)).tolist()
a['warp_x.1_y-.05']=go(Warp(p=1.,draw_x=.1,draw_y=-.05)).tolist()
a['brightness_.55']=go(Brightness(p=1.,draw=.55)).tolist()
a['contrast_1.1']=go(Contrast(p=1.,draw=1.1)).tolist()
tf=setup_aug_tfms([Flip(p=1.,draw=1.),Warp(p=1.,draw_x=.1,draw_y=-.05),Rotate(p=1.,draw=7.),Zoom(p=1.,draw=1.08,draw_x=.3,draw_y=.7),Brightness(p=1.,draw=.55),Contrast(p=1.,draw=1.1)])
a['composed_order_flip_rotate_zoom_then_warp_then_bright_contrast']=go(tf).tolist(); a['composed_repr']=[type(t).__name__ for t in tf]
out['augment']=a
out['aug_transforms_default_types']=[type(t).__name__ for t in aug_transforms()]
# 8 Resize crop boxes (valid)
def box(w,h,s):
    m=w/s if w/s<h/s else h/s
    cp=(int(m*s),int(m*s)); tl=(int(.5*(w-cp[0])),int(.5*(h-cp[1]))); return {'w':w,'h':h,'size':s,'crop':cp,'tl':tl}
out['resize_crop_valid']=[box(*a) for a in [(640,480,224),(480,640,224),(1000,667,460),(300,300,224),(101,57,224)]]
# 9 tta
pr=torch.tensor([[.7,.2,.1]]); au=torch.stack([torch.tensor([[.5,.4,.1]]),torch.tensor([[.6,.3,.1]]),torch.tensor([[.4,.4,.2]]),torch.tensor([[.5,.3,.2]])])
out['tta']={'plain':pr.tolist(),'aug':au.tolist(),'beta':.25,'fastai2':torch.lerp(au.mean(0),pr,.25).tolist(),'fastai07':((pr+au.sum(0))/5).tolist(),'use_max':torch.stack([pr,au.max(0)[0]],0).max(0)[0].tolist()}
# mom0 
json.dump(out,open('fastai.json','w'),indent=1)
print(json.dumps({k:out[k] for k in ['fastai','torch','splitter','adam','label_smoothing','aug_transforms_default_types','resize_crop_valid','tta']},indent=0)); print(out['head']); print({k:out['lr_find'][k] for k in ['valley','minimum','steep','slide']}); 
for r in out['fine_tune_trace']['rows'][:3]+out['fine_tune_trace']['rows'][9:14]+out['fine_tune_trace']['rows'][26:30]+out['fine_tune_trace']['rows'][-2:]: print(r)
